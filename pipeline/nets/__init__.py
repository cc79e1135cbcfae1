"""Networks: nn.Module only; `build` is the one place that chooses."""
