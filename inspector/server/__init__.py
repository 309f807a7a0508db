"""The app's own server parts: security gate, live WebSocket route, bundled assets, launcher."""
