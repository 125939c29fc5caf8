"""Models as people publish them, small, and rows for them; `MODELS` in `catalogue.py` names them all."""
