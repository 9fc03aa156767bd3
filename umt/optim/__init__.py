"""Optimiser: parameter groups, schedules, construction."""
