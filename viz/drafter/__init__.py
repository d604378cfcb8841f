"""What a drafter gets wrong, as tables and figures."""
