"""What operators see: metrics, logs, and the statistics behind them.

May import the standard library, prometheus-client and orjson; nothing else of this package.
"""
