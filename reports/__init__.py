"""What the results mean. Needs neither torch nor ray."""
