"""Training: one loop for every recipe, and what each recipe optimises."""
