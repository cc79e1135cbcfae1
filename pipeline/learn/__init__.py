"""The only room that knows Lightning: training modules, data feeding and the trainer."""
