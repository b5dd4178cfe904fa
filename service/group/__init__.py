"""A server in several processes: front-end processes on one port before one engine process.

Reading order: the processes share `descriptors` and a `memory_file` with a `memory_layout` and a
`version_header`. A front-end process is `front_end_server`,
`engine_peer`, `remote_version` and `engine_link`. The engine process is `engine_server` and `peers`; requests come in
through `links` and `front_end_link`, and go out through `shared_outputs` and `link_sink`. Beside frames the processes
exchange `messages` over a `talk`. `parent` starts them all, with `starts` and the `fork_server`.
"""
