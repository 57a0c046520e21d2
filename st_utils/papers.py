"""The `source` texts of papers from which several parts come: authors, year, identifier, repository.

`@register.attention("semm", source=SEMM)`: `--list` shows it, and `--cite` finds the paper's BibTeX by it.
"""

DTA_SNN = "Kim et al. 2025 (DTA-SNN), arXiv:2503.10052; MnJnKIM/DTA-SNN"
SEMM = "Zhou et al. 2024 (Spiking Transformer with Experts Mixture), NeurIPS 2024, openreview WcIeEtY3AG"
SGLFORMER = "Zhang et al. 2024 (SGLFormer), Frontiers in Neuroscience 18:1371290; ZhangHanN1/SGLFormer"
SPIKINGRESFORMER = "Shi et al. 2024 (SpikingResformer), arXiv:2403.14302; xyshi2000/SpikingResformer"
