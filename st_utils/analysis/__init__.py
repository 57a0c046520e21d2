"""What a model costs: operations counted from its real spikes, energy, firing rates, time; and what runs in it."""
