"""What the authors' words mean that take more than a table: each rule reads some words and says what they are here.

    from zoo.authors.word_rules import RULES, Reading

    reading = Reading({"learning_rate": 0.1}, {"model": "sdt"})
    reading.tables()
    reading.settings, reading.notes  # ({'model': 'sdt', 'lr': 0.1}, ['learning_rate: taken as lr=0.1'])

`lr` and `epochs` are words of the scripts and of this project with two meanings: where other words tell the script,
they are converted. BrainCog's scripts multiply `lr` by batch size / 1024; timm's schedules add
the cool-down to `epochs`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from registry import Spec, SpecError, entry, parse
from registry.spec import show
from st_utils.braincog.nodes import NODES as BRAINCOG_NODES
from st_utils.errors import UserError
from zoo.authors import words as w
from zoo.authors.constructor import ConstructorArguments
from zoo.authors.sdt import STATTEN_DEFAULTS, attention_of
from zoo.authors.step_benchmark import DEFAULTS, lif_of
from zoo.authors.transfer import NODES, SURROGATES, node_of


def number(value: Any) -> Any:
    """YAML reads 5e-4 as text; here it is a number. Other values stay."""
    try:
        return float(value) if isinstance(value, str) and re.match(r"[+-]?[0-9.]", value) else value
    except ValueError:
        return value


class Reading:
    """What is found so far of one translation."""

    def __init__(self, words: Mapping[str, Any], settings: Mapping[str, Any], in_file: bool = False):
        self.words, self.settings, self.in_file = dict(words), dict(settings), in_file
        self.arguments: dict[str, Any] = {}
        self.notes: list[str] = []
        self.scripts = {
            name
            for name in ("BRAINCOG", "STEP", "TIMM", "DTA")
            if any(word in getattr(w, name) and value is not None for word, value in words.items())
        } or ({"TIMM"} if in_file else set())

    @property
    def dataset(self) -> str:
        """The registered name of the data set."""
        spec = parse(self.settings.get("dataset", "digits"))
        try:
            return entry("dataset", spec).name
        except SpecError:  # it is refused where the run's data are loaded
            return spec.name.lower()

    @property
    def events(self) -> bool:
        return self.dataset in w.EVENTS

    def take(self, word: str, setting: str, value: Any, why: str = "") -> None:
        """The word is this value of a setting."""
        if setting in self.settings and self.settings[setting] != value:
            given = show(self.settings[setting])
            raise UserError(f"{word} is {setting} here, which is given too, as {given}: leave one of them out")
        self.settings[setting] = value
        self.notes.append(f"{word}: taken as {setting}={show(value)}{why and f'; {why}'}")

    def give(self, word: str, path: str, value: Any, why: str = "") -> None:
        """The word is this value of an argument of the model."""
        self.arguments[path] = value
        self.notes.append(f"{word}: taken as the model's {path}={show(value, width=200)}{why and f'; {why}'}")

    def names(self) -> None:
        """Names of models and data sets in the authors' spelling, and which model a script is for."""
        for word in ("target_dataset", "DS", "d", "source_dataset"):
            if word in self.words:
                self.take(word, w.SAME[word], self._dataset(self.words.pop(word)))
        if "dataset" in self.settings:
            self.settings["dataset"] = self._dataset(self.settings["dataset"])
        if "model" in self.settings:
            self.settings["model"] = self._model(self.settings["model"])
        elif "DTA" in self.scripts:
            self.take("DTA-SNN's script", "model", "dta_snn34" if self.dataset == "imnet" else "dta_snn18")
        elif self.in_file and "recipe" not in self.settings:
            raise UserError("the authors' file names no model: type --model sdt for SDT and STAtten, or another")

    @staticmethod
    def _dataset(name: Any) -> str:
        return w.DATASETS.get(str(name), str(name))

    @staticmethod
    def _model(name: str) -> str:
        if name in w.NO_MODELS:
            raise UserError(f"no model {name!r} here: {w.NO_MODELS[name]}")
        return w.MODELS.get(name, name)

    def tables(self) -> None:
        """The words that the tables answer."""
        for word, value in self.words.items():
            value = value if word in w.TEXTS else number(value)
            if word in w.OTHERWISE and value not in w.OFF:
                raise UserError(f"{word} of the authors' scripts is no option here: {w.OTHERWISE[word]}")
            if word in w.LIMITED and value not in w.LIMITED[word].values:
                raise UserError(f"{word}={show(value)} of the authors' scripts: {w.LIMITED[word].advice}")
            if word in w.IGNORED and value not in w.OFF:
                self.notes.append(f"{word}: left out, {w.IGNORED[word]}")
            elif word in w.SAME and value is not None:
                self.take(word, w.SAME[word], value)
            elif word in w.MODEL and value is not None:
                self.give(word, w.MODEL[word], value)


def _attention(found: Reading) -> None:
    """STAtten's attention, whose authors have another form for events; DTA-SNN's with and without its attention."""
    words = found.words
    if "attention_mode" in words or "chunk_size" in words:
        given = {"attention_mode": words.get("attention_mode", "STAtten"), "chunk_size": words.get("chunk_size", 2)}
        args = ConstructorArguments({**given, "dvs_mode": found.events}, STATTEN_DEFAULTS, "STAtten's model")
        found.give("attention_mode", "attention", attention_of(args, fork=True))
    if words.get("spike_mode") == "plif":
        fork = "attention_mode" in words or "chunk_size" in words
        found.give("spike_mode", "mlp_node" if fork else "node", "plif")
    elif words.get("spike_mode", "lif") != "lif":
        raise UserError(f"spike_mode is lif or plif, not {words['spike_mode']}")
    if words.get("DTA_ON", True) in (False, 0):
        found.give("DTA_ON", "attention", None, "the authors' script reads any text, False too, as true")
    if "attn_layer" in words and found.settings.get("model") != "spikf_semm":
        found.give("attn_layer", "attention", words["attn_layer"])


def _node(found: Reading) -> None:
    """BrainCog's neuron with a surrogate, STEP's, or the class alone."""
    words = found.words
    kind, threshold, tau = words.get("node_type"), words.get("threshold"), words.get("tau")
    if "act_fun" in words:
        values = {"threshold": 0.5 if threshold is None else threshold, "tau": 2.0 if tau is None else tau}
        found.give("node_type, act_fun", "node", _braincog_node(kind or "LIFNode", words["act_fun"], values))
    elif "act_function" in words:
        given = {name: words[name] for name in ("tau", "threshold") if name in words}
        if kind in w.STEP_NODES:
            nearest = w.STEP_NODES[kind]
            raise UserError(f"node_type {kind} is the benchmark's own class: type --node {nearest}, this project's")
        args = ConstructorArguments(given | {"node": kind}, DEFAULTS, "the STEP benchmark")
        args["neuron"] = {}
        found.give("node_type, act_function", "node", lif_of(args), "their code always has the sigmoid, alpha 4")
    else:
        for word, path in (("node_type", "node"), ("threshold", "node.threshold"), ("tau", "node.tau")):
            if word in words:
                found.give(word, path, words[word])


def _braincog_node(kind: str, act_fun: str, values: dict[str, float]) -> Spec:
    """This project's node where it has the same, else BrainCog's own class with what it reads."""
    if kind in NODES and act_fun in SURROGATES:
        return node_of(kind, act_fun, **values)
    reads = BRAINCOG_NODES[kind].reads.split() if kind in BRAINCOG_NODES else values
    given = {name: float(value) for name, value in values.items() if name in reads}
    return Spec(f"braincog.{kind}", {"act_fun": act_fun, **given})


def _training(found: Reading) -> None:
    """Mixed precision, moving averages, interpolation, mixing."""
    words = found.words
    if words.get("native_amp") or words.get("apex_amp"):
        if torch.cuda.is_available() and found.settings.get("device") != "cpu":
            found.take("amp", "amp", "fp16")
        else:
            found.notes.append("amp: left out, its fp16 needs a GPU; --amp bf16 is for CPUs")
    if words.get("model_ema"):
        found.take("model_ema", "ema", words.get("model_ema_decay", 0.9998))
    if (training := words.get("train_interpolation")) is not None:
        if found.settings.get("interpolation", training) != training:
            raise UserError("interpolation and train_interpolation differ: here one is for both")
        found.take("train_interpolation", "interpolation", training)
    if "beta" in words or ("cutmix_prob" in words and "DTA" in found.scripts):
        why = "mixed batches are drawn one by one, in the authors' script once an epoch"
        found.take("beta", "cutmix", float(words.get("beta", 1.0)), why)
        found.take("cutmix_prob", "mixup_prob", float(words.get("cutmix_prob", 0.5)))
    elif "cutmix_prob" in words:
        raise UserError("cutmix_prob is no option here: type --mixup-prob, with --cutmix, --mixup or --event-mix")
    if words.get("eval_checkpoint"):
        if str(words["eval_checkpoint"]).endswith((".pth", ".pt", ".tar")):
            raise UserError("eval_checkpoint: authors' weights are loaded in Python, zoo.load_published(model, state)")
        found.take("eval_checkpoint", "resume", words["eval_checkpoint"])
        found.take("eval_checkpoint", "eval", True)


def _transfer(found: Reading) -> None:
    """Transfer from images to events, and TET's means and weights, which differ from script to script."""
    words, settings = found.words, found.settings
    if "source" in settings and "BRAINCOG" in found.scripts:
        weight = words.get("domain_loss_coefficient", 0.5) if words.get("domain_loss") else 0.0
        without = "without sliding their script leaves the domain loss out"
        weight, why = (0.0, without) if words.get("no_sliding_training") else (float(weight), "")
        found.take("domain_loss", "domain_weight", weight, why)
    elif words.get("domain_loss") or "domain_loss_coefficient" in words:
        raise UserError("domain_loss needs two domains: give --source-dataset (here --source) as well")
    if words.get("no_sliding_training"):
        found.take("no_sliding_training", "sliding", False)
    if words.get("no_use_hsv"):
        found.take("no_use_hsv", "hsv", False)
    if words.get("DVS_DA"):
        found.take("DVS_DA", "event_augment", "braincog")
    portion = words.get("train_portion", 0.9)
    if portion != 0.9 and not (portion == 0.5 and found.dataset == "cepdvs"):
        raise UserError(f"train_portion={portion}: the data set says its split, split=braincog is 0.9")
    if words.get("TET_loss"):
        found.take("TET_loss", "tet", True)
        found.take("TET_loss", "tet_means", float(words.get("threshold", 0.5)), "the neurons' threshold")
    elif words.get("tet_loss"):
        found.take("tet_loss", "tet", True)
        found.take("tet_loss", "tet_lamb", 0.0)
    elif words.get("TET") and "TET_lamb" not in words:
        found.take("TET", "tet_lamb", 0.0, "their default")


def _schedule(found: Reading) -> None:
    """`lr`, `epochs` and `batch_size` as the script means them that the other words tell."""
    settings, scripts = found.settings, found.scripts
    world = int(os.environ.get("WORLD_SIZE", 1))
    if scripts and world > 1 and "batch_size" in settings:
        settings["batch_size"] *= world
        found.notes.append(f"batch_size: {settings['batch_size']} over all {world} processes, there it is of each")
    if "lr" in settings and "learning_rate" not in found.words:
        if "BRAINCOG" in scripts or ("STEP" in scripts and found.events):
            if "batch_size" not in settings:
                raise UserError("the authors' script multiplies lr by batch size / 1024: give --batch-size as well")
            rate, batch = float(number(settings["lr"])), settings["batch_size"]
            settings["lr"] = rate * batch / 1024
            why = "as the authors' script multiplies it by batch size / 1024; --learning-rate X is X"
            found.notes.append(f"lr={rate:g}: taken as lr={settings['lr']:.6g}, {why}")
        elif "node_type" in found.words and not scripts:
            raise UserError("lr beside node_type: BrainCog's scripts multiply it by batch size / 1024, STEP's do not; "
                            "type --learning-rate X, or --node in place of --node-type")  # fmt: skip
    timm = scripts & {"BRAINCOG", "STEP", "TIMM"}
    if timm and "epochs" in settings and settings.get("sched", "cosine") != "step":
        cooldown = settings.setdefault("cooldown_epochs", 10)
        settings["epochs"] += cooldown
        found.notes.append(f"epochs: {settings['epochs']} with the {cooldown} of cool-down that the script adds")


def _data(found: Reading) -> None:
    """What timm's scripts do with images by default, and what they leave out for events."""
    settings = found.settings
    if not found.scripts & {"TIMM", "STEP"}:
        return
    if not found.events:
        if found.in_file and "hflip" not in settings:
            found.take("timm's default", "hflip", 0.5)
        if settings.get("auto_augment") and settings.pop("color_jitter", None):
            found.notes.append("color_jitter: left out, auto_augment takes its place in timm too")
        return
    left = [name for name in w.IMAGE_AUGMENTATIONS if settings.pop(name, None) is not None]
    if left:
        found.notes.append(f"{', '.join(left)}: left out, not applied to events there either")
    if "img_size" in settings:
        found.take("img_size", "event_size", settings.pop("img_size"))


RULES: tuple[Callable[[Reading], None], ...] = (_attention, _node, _training, _transfer, _schedule, _data)
