"""Where notices go: mail, webhooks, chats."""
