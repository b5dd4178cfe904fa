"""A server in several processes: front-end processes on one port before one engine process.

Reading order: `descriptors` and `memory_file` are what the processes share; `engine_server`, `engine_links` and
`shared_outputs` are the engine process; `front_end_server`, `engine_link` and `remote_version` a front-end process;
`messages` and `talk` what is said beside frames.
"""
