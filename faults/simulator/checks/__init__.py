"""What must hold: at every step (`watch.py`), once all has healed (`rest.py`), and of what was read and written in
whatever order (`serial.py`). None of it looks at lock tables or protocol states to find out what is true."""
