"""Short training runs on two versions of this project, compared bit for bit: a refactor proves that nothing changed."""
