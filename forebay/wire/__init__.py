"""Generated protocol code; see `make proto`. Do not edit."""
