"""One published system a file: a cited difference from `config.BASE`."""
