"""What a model costs: operations counted from its spikes, energy, firing rates, memory traffic and time per layer.

    found = profile(model, images)           # profile.py
    found["totals"]["sops"], found["totals"]["energy_mj"], found["totals"]["firing_rate"]

operations.py counts multiply-accumulates and accumulations, firing.py spikes; profile.py joins them with energy and
time; tables.py shows the result. None of them knows how a model is trained.
"""
