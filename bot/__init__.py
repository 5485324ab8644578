"""The bot: Telegram in and out, a store below, `qa_engine` for the reading. Never imports `trainer`."""
