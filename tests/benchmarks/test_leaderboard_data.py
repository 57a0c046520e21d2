"""The leaderboard's rows belong to the data, the plug-ins and the defaults that they were measured with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

import registry
from benchmarks.leaderboard import suite as suite_module
from benchmarks.leaderboard.__main__ import main
from benchmarks.leaderboard.store import Store, this_process
from benchmarks.leaderboard.suite import load_suite
from tests.benchmarks.test_leaderboard import TINY, ended, rows_of, statuses


class TestData:
    """Results belong to the data that they were measured on."""

    SUITE = """
dataset: folder
recipe: none
seeds: [0]
settings: {epochs: 1, batch_size: 8, img_size: 8}
entries: ["spikformer(embed_dim=8, depth=1, num_heads=2, step=2)"]
"""

    def photos(self, root: Path, seed: int) -> str:
        pixels = np.random.RandomState(seed)
        for label in ("cat", "dog"):
            (root / label).mkdir(parents=True)
            for number in range(10):
                image = Image.fromarray(pixels.randint(0, 256, (8, 8, 3), dtype=np.uint8))
                image.save(root / label / f"{number}.bmp")
        return str(root)

    def test_other_data_are_another_row(self, tmp_path, capfd):
        suite, store = tmp_path / "photos.yml", str(tmp_path / "r.db")
        suite.write_text(self.SUITE)
        words = ["run", "--suite", str(suite), "--store", store, "--data-dir"]
        places = [self.photos(tmp_path / str(seed), seed) for seed in (0, 1)]
        for place in places:
            assert main([*words, place]) == 0
        done = rows_of(Path(store))
        assert statuses(done) == {"done": 2}
        assert len({row["row"] for row in done}) == len({row["key"] for row in done}) == 2
        data = [json.loads(row["summary"])["data"] for row in done]
        assert data[0]["digest"] != data[1]["digest"]
        assert (
            {**data[0], "digest": ""}
            == {**data[1], "digest": ""}
            == {"classes": 2, "train": 16, "test": 4, "digest": ""}
        )
        before = ended(Path(store))
        Path(places[0]).rename(tmp_path / "moved")
        assert main([*words, str(tmp_path / "moved")]) == 0
        assert ended(Path(store)) == before, "the same data at another place are not run again"

    def test_data_that_arrive_later_make_no_second_row(self, tmp_path):
        (tmp_path / "photos.yml").write_text(self.SUITE)
        (missing,) = load_suite(str(tmp_path / "photos.yml"), places={"data_dir": str(tmp_path / "here")})
        self.photos(tmp_path / "here", 0)
        suite_module._digest_at.cache_clear()
        (there,) = load_suite(str(tmp_path / "photos.yml"), places={"data_dir": str(tmp_path / "here")})
        assert missing.data is None and there.data and there.key_without_data == missing.key
        with Store(tmp_path / "r.db") as store:
            store.add("photos", [missing])
            assert store.claim([missing.key], this_process())
            store.fail(missing.key, this_process(), "missing")
            store.add("photos", [there])
            assert [row["key"] for row in store.runs()] == [there.key]

    def test_embedded_data_leave_the_keys_as_they_were(self, tmp_path):
        """Stores that earlier versions made are gone on with: these keys are commit 033ad3e's."""
        (tmp_path / "tiny.yml").write_text(TINY)
        assert [run.key for run in load_suite(str(tmp_path / "tiny.yml"))] == [
            "306a38bbd3e3",
            "1dbc3c0001e0",
            "b560f6f1433b",
        ]

    def test_rows_of_other_defaults_are_told(self, tmp_path, capfd):
        (tmp_path / "tiny.yml").write_text(TINY)
        run = load_suite(str(tmp_path / "tiny.yml"))[0]
        full = str(registry.full("model", run.spec)).replace("tau=2.0", "tau=1.25")
        with Store(tmp_path / "r.db") as store:
            store.add("tiny", [run])
            store.claim([run.key], this_process())
            store.finish(run.key, this_process(), {"summary": {"full_spec": full, "top1": 1.0}})
        words = ["run", "--suite", str(tmp_path / "tiny.yml"), "--store", str(tmp_path / "r.db"), "--only", run.spec]
        assert main(words) == 0
        said = capfd.readouterr().out
        assert "done with other defaults (node.tau=1.25, now 2.0)" in said


def test_an_edited_module_is_another_run(tmp_path, monkeypatch):
    """Of a plug-in that is a module, the contents count, as of a file."""
    (tmp_path / "leaderboard_module.py").write_text(
        "import torch\nfrom registry import register\n\n\n@register.attention('leaderboard_module_part')\n"
        "class Part(torch.nn.Module):\n    '''What came.'''\n\n    def forward(self, x):\n        return x\n"
    )
    (tmp_path / "tiny.yml").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    registry.load_plugin("leaderboard_module")
    own = "spikformer(attention=leaderboard_module_part)"
    keys = []
    for _ in range(2):
        *_, mine = load_suite(str(tmp_path / "tiny.yml"), plugins=("leaderboard_module",), further=[own])
        keys.append(mine.key)
        with open(tmp_path / "leaderboard_module.py", "a") as file:
            file.write("# edited\n")
    assert mine.plugins == ("leaderboard_module",)
    assert keys[0] != keys[1]
