"""What trains and tests a model: settings, the trainer, checkpoints and run folders."""
