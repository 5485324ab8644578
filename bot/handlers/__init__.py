"""What the bot does with an update: one file a command family, plain async functions `(update, context)`.

`conversation` is what they share. They know Telegram, the store and the engine; how texts are cut and escaped
is left to `bot.replies`, and which function gets which update to `bot.application`.
"""
