"""Find other nodes. Today: a book of announcements that seeds exchange."""
