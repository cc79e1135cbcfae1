"""A made-up head on CT, as pure functions: who has what (plan), the head, its blood, the scanner, stored numbers."""
