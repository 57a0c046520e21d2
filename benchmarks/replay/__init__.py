"""Replay: does a change of the code change a result? Short runs on two versions, compared bit for bit.

python -m benchmarks.replay main --only 'lif|sdt'
"""
