"""The leaderboard: which models, at what cost, are more accurate than others by more than chance and seeds explain?

    python -m benchmarks.leaderboard run --suite smoke
    python -m benchmarks.leaderboard status
    python -m benchmarks.leaderboard report --out leaderboard
    python -m benchmarks.leaderboard reproduce ROW --run

A suite lists runs (suite.py). Each is `python main.py` in a process of its own (runner.py, ray_launcher.py), whose
results are kept in an SQLite file (store.py). A row of the table is a spec on a data set with its settings: the mean
over the runs that differ in their seed alone (table.py, marks.py, chance.py). report.py writes the page and the table,
and says what each column means. Published suites and their tables: docs/leaderboard.md.
"""
