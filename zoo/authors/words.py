"""The options of the authors' scripts, and what they are here: the tables that `translate.py` reads.

    from zoo.authors.words import MODEL, OTHERWISE, SAME

    SAME["learning_rate"], MODEL["num_heads"]  # ('lr', 'num_heads')
    OTHERWISE["start_epoch"]  # 'a run goes on with --resume runs/NAME'

Scripts: STAtten and SDT (train.py), DTA-SNN (main.py), BrainCog's examples (main.py), Transfer-for-DVS
(main_transfer.py), STEP (train.py, train_dvs.py). Names are written with `_`, as their code reads them; on the command
line `-` is as good. Options that have the same name and meaning here are in no table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# -- the same meaning under another name -----------------------------------------------------------------------------
SAME = {
    "learning_rate": "lr",
    "time_step": "step",
    "time_steps": "step",
    "T": "step",
    "aa": "auto_augment",
    "dr": "decay_rate",
    "b": "batch_size",
    "j": "workers",
    "d": "dataset",
    "DS": "dataset",
    "target_dataset": "dataset",
    "source_dataset": "source",
    "traindata_ratio": "target_ratio",
    "rgbdata_ratio": "source_ratio",
    "pow": "sliding_power",
    "regularization": "regularize",
    "TET": "tet",
    "TET_means": "tet_means",
    "TET_lamb": "tet_lamb",
}
# Arguments of the model, or of one of its parts: `attention.scale` is the attention's.
MODEL = {
    "num_heads": "num_heads",
    "depths": "depth",
    "layer": "depth",
    "embed_dim": "embed_dim",
    "dim": "embed_dim",
    "mlp_ratio": "mlp_ratio",
    "pooling_stat": "embedding.pooling",
    "attn_scale": "attention.scale",
    "tim_alpha": "attention.alpha",
    "encode": "encoder",
}
# Words that take more than one to say; `translate.py` has a function for each.
RULED = (
    "attention_mode", "chunk_size", "spike_mode", "DTA_ON", "node_type", "act_fun", "act_function", "threshold", "tau",
    "model_ema", "model_ema_decay", "native_amp", "apex_amp", "train_interpolation", "beta", "cutmix_prob",
    "domain_loss", "domain_loss_coefficient", "TET_loss", "tet_loss", "no_sliding_training", "no_use_hsv", "DVS_DA",
    "eval_checkpoint", "train_portion", "attn_layer",
)  # fmt: skip

# What these decide where the command line names the part itself: `--node plif` comes before a file's `node_type`.
PARTS = {
    **dict.fromkeys(("node_type", "act_fun", "act_function", "threshold", "tau"), "node"),
    **dict.fromkeys(("attention_mode", "chunk_size", "attn_layer", "attn_scale", "tim_alpha", "DTA_ON"), "attention"),
    **dict.fromkeys(("pooling_stat", "embed_layer"), "embedding"),
    "encode": "encoder",
}

# -- no counterpart --------------------------------------------------------------------------------------------------
# Words that change no number, here or in the authors' code: they are left out, and a line says so.
IGNORED = {
    **dict.fromkeys(
        ("log_interval", "recovery_interval", "checkpoint_hist", "save_images", "experiment", "eval_metric", "suffix")
        + ("log_wandb", "tensorboard_dir"),
        "of logs and checkpoints",
    ),
    **dict.fromkeys(
        ("pin_mem", "no_prefetcher", "use_multi_epochs_loader", "local_rank", "num_gpu", "val_batch_size", "vb")
        + ("validation_batch_size_multiplier", "model_ema_force_cpu"),
        "of speed and machines",
    ),
    **dict.fromkeys(
        ("num_classes", "in_channels", "mean", "std", "input_size", "sequence_length"), "the data set says it"
    ),
    **dict.fromkeys(
        ("drop_path", "drop", "patch_size", "use_conv_as_linear", "aug_repeats", "alpha", "adam_epoch")
        + ("newton_maxiter", "kernel_method", "adaptation_info", "lr_noise_pct", "lr_noise_std", "patience_epochs")
        + ("init_alif",),
        "the authors' code does not use it",
    ),
    "layer_by_layer": "layers here take all time steps at once",
}


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


class Only(NamedTuple):
    """The values at which a word changes nothing, and what to type for others."""

    values: tuple[Any, ...]
    advice: str = "there is no such setting here"


OFF = (None, False, "", 0, 0.0)
_WEIGHTS = "authors' weights are loaded in Python: zoo.load_published(model, state_dict)"
_PROFILE = "type --profile --resume runs/NAME"
_EVENTS = "type --event-augment, see --help"
LIMITED = {
    **dict.fromkeys(("drop_connect", "drop_block", "vflip", "aug_splits", "jsd", "bce_loss", "resplit"), Only(OFF)),
    **dict.fromkeys(("gp", "bn_tf", "bn_momentum", "bn_eps", "split_bn", "dist_bn", "linear_prob"), Only(OFF)),
    **dict.fromkeys(("tta", "torchscript", "lr_noise", "epoch_repeats", "cutmix_minmax", "opt_betas"), Only(OFF)),
    **dict.fromkeys(("mlp_drop", "attn_drop", "noisy_grad", "spike_output", "temporal_flatten"), Only(OFF)),
    **dict.fromkeys(("adaptive_node", "critical_loss", "requires_thres_grad", "sigmoid_thres"), Only(OFF)),
    **dict.fromkeys(("node_trainable", "snr", "rand_step", "n_encode_type", "n_preact"), Only(OFF)),
    **dict.fromkeys(("reset_drop",), Only(OFF)),
    **dict.fromkeys(("cutmix_num", "lr_cycle_limit", "lr_cycle_mul", "n_groups"), Only((None, 1, 1.0))),
    "embed_layer": Only((None, "SPS"), "type --embedding, see --list embedding"),  # SPS is each model's own class
    "bce_target_thresh": Only((*OFF, 0.2), "there is no binary cross-entropy here"),  # read with bce_loss alone
    "opt_eps": Only((*OFF, 1e-8)),
    "clip_mode": Only((None, "norm"), "--clip-grad clips by the norm"),
    "mixup_mode": Only((None, "batch"), "mixing here is of whole batches"),
    "loss_fn": Only((None, "ce"), "the loss here is the cross-entropy, with --tet at every time step"),
    "tsregular": Only((None, -1.0, -1), "Python has it: TransferLoss(fixed_weight=...)"),
    "no_aug": Only(OFF, "type --recipe none: settings then have their defaults, without augmentation"),
    "no_resume_opt": Only(OFF, "type --eval --resume runs/NAME to test; training goes on with the optimiser's state"),
    "pretrained": Only(OFF, _WEIGHTS),
    "initial_checkpoint": Only(OFF, _WEIGHTS),
    "node_resume": Only(OFF, _WEIGHTS),
    "train_split": Only((None, "train"), "the data set says its splits, see --list dataset"),
    "val_split": Only((None, "validation"), "the data set says its splits, see --list dataset"),
    "train_split_path": Only(OFF, "the data set says its splits, see --list dataset"),
    "sew_cnf": Only(OFF, "type --model 'sew_resnet18(...)', see docs/published.md"),
    "conv_type": Only((*OFF, "normal")),
}
# Words that mean what has another form here: the answer is what to type.
OTHERWISE = {
    "start_epoch": "a run goes on with --resume runs/NAME",
    "cut_mix": "type --cutmix 1.0 --mixup-prob 0.5 (alpha, probability)",
    "mix_up": "type --mixup 1.0 --mixup-prob 0.5 (alpha, probability)",
    "cutmix_beta": "type --cutmix, --mixup or --event-mix with alpha",
    "cutmix_noise": "there is no noise after mixing here",
    "gaussian_n": "--event-mix has three centres, as by default there",
    "rand_aug": _EVENTS,
    "randaug_n": _EVENTS,
    "randaug_m": _EVENTS,
    "dvs_aug": _EVENTS,
    "dvs_trival_aug": _EVENTS,
    "camvis": "type --show gradcam --resume runs/NAME",
    "tsne": "type --show embedding --resume runs/NAME",
    "conf_mat": "type --show confusion --resume runs/NAME",
    "visualize": "type --show spikes --resume runs/NAME",
    "spike_rate": _PROFILE,
    "mem_dist": _PROFILE,
}

# -- how they are written --------------------------------------------------------------------------------------------
FLAGS = _set(
    """pretrained no_resume_opt no_aug jsd bce_loss resplit bn_tf split_bn linear_prob model_ema model_ema_force_cpu
    save_images apex_amp native_amp pin_mem no_prefetcher dvs_aug dvs_trival_aug use_multi_epochs_loader torchscript
    log_wandb domain_loss TET_loss tet_loss DVS_DA no_use_hsv no_sliding_training regularization camvis tsne conf_mat
    visualize spike_rate mix_up cut_mix rand_aug layer_by_layer node_trainable spike_output temporal_flatten
    adaptive_node critical_loss requires_thres_grad sigmoid_thres reset_drop mem_dist adaptation_info"""
)
LISTS = _set("mean std opt_betas lr_noise cutmix_minmax input_size scale ratio")
BARE = _set("TET DTA_ON")  # may be written with a value or without
NUMBERS = _set("layer")  # a depth; a name of text is this project's `layer`, of --show
TEXTS = _set("pooling_stat aa")  # "0011" is no number
# Words whose presence tells the script, and with it what `lr` and `epochs` mean.
BRAINCOG = _set(
    """act_fun source_dataset target_dataset domain_loss domain_loss_coefficient traindata_ratio rgbdata_ratio TET_loss
    tet_loss no_sliding_training no_use_hsv regularization DVS_DA eval_checkpoint encode loss_fn train_portion
    requires_thres_grad sigmoid_thres spike_output"""
)
STEP = _set("act_function attn_layer embed_layer attn_scale attn_drop mlp_drop depths tim_alpha")
TIMM = _set("time_steps chunk_size attention_mode spike_mode pooling_stat layer dim TET TET_means")
DTA = _set("DS DTA_ON beta")

# -- what they name --------------------------------------------------------------------------------------------------
STEP_NODES = {"PLIFNode": "plif", "GLIFTorch": "glif", "KLIFNode": "klif", "ComplementaryLIFNeuron": "clif"}
STEP_NODES |= {"PSNTorch": "psn", "ILIFNode": "ilif"}
DATASETS = {
    "torch/cifar10": "cifar10",
    "torch/cifar100": "cifar100",
    "cifar10-dvs": "dvsc10",
    "imgnet": "imnet",
    "gesture": "dvsg",
    "esimnet": "esimagenet",
    "omni": "omniglot",
    "nomni": "nomniglot",
}
EVENTS = ("dvsc10", "dvsg", "nmnist", "ncaltech101", "ncars", "shd", "esimagenet", "cepdvs", "nomniglot", "digits_dvs")
IMAGE_AUGMENTATIONS = ("scale", "ratio", "hflip", "color_jitter", "crop_pct", "interpolation", "auto_augment", "reprob")
_STEP_IMAGENET = "type --recipe {0}_imnet: its model has the form for ImageNet"
MODELS = {
    f"{name}_cifar": name
    for name in ("spikformer", "sdt", "sglformer", "spikf_semm", "qkformer", "spikingformer", "spikingresformer")
    + ("swformer",)
}
MODELS |= {
    "Transfer_VGG_SNN": "transfer_vgg",
    "Transfer_ResNet18": "transfer_resnet18",
    "Transfer_SCNN": "transfer_scnn",
}
MODELS |= {"DTA_SNN_18": "dta_snn18", "DTA_SNN_34": "dta_snn34"}
NO_MODELS = {
    "spikformer_imagenet": _STEP_IMAGENET.format("spikformer"),
    "sdt_imagenet": _STEP_IMAGENET.format("sdt"),
    "std_imagenet": _STEP_IMAGENET.format("sdt"),  # as its file spells it
    "qkformer_imagenet": _STEP_IMAGENET.format("qkformer"),
    "spikformer_dvs": "type --model spikformer --recipe spikformer_dvsc10",
    "spikformer_es": "type --model spikformer --dataset esimagenet with the sizes",
    "Transfer_ResNet34": "there is transfer_resnet18 alone",
    "spt": "there are no models of point clouds here",
}
