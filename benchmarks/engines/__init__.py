"""Inference of this zoo against the engines that its models could be exported to: `python -m benchmarks.engines -h`.

task.py          what is computed: weights, images, batch; without torch, as the engines' processes read it
prepare.py       tasks of specs and of trained runs: norms, float64 logits, the exported file
contestants.py   the engines, and the one table where another is registered
process.py       an engine in a process of its own
measure.py       the rounds, in which the processes take turns
report.py        table and picture
"""
