"""Child processes: they drop their parent's data when they start, and export before they end."""
