"""The leaderboard: suites of runs, their store, and the page that compares them.

python -m benchmarks.leaderboard run --suite smoke
python -m benchmarks.leaderboard status
python -m benchmarks.leaderboard report --out leaderboard
python -m benchmarks.leaderboard reproduce ROW --run
"""
