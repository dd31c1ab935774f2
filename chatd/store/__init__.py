"""PostgreSQL: tables, the hot statements and the functions that run them."""
