"""Who owes whom, cheques and channel states as values. Still empty; prices stand in `stook.money`."""
