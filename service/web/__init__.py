"""The web console: pages for browsers, and the WebSocket behind them. Needs the extra `web`."""
