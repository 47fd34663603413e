"""What a data owner hands out: the formats that others read, a card that states the cost, and what may be in there."""
