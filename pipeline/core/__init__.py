"""Pure functions of arrays and tables: no disk, no network, no Lightning."""
