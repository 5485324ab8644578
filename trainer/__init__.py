"""Teaches: SQuAD files in, checkpoints out. Imports `qa_engine`, never `bot`."""
