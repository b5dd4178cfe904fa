"""A server in several processes: front-end processes on one port before one engine process, or several.

Reading order: the processes share `descriptors` and a `memory_file` with a `memory_layout` and a
`version_header`. A front-end process is `front_end_server`,
`engine_peer`, `remote_version` and `engine_link`. The engine process is `engine_server` and `peers`; requests come in
through `links` and `front_end_link`, and go out through `shared_outputs` and `link_sink`. Beside frames the processes
exchange `messages` over a `talk`. `parent` starts them all, with `starts` and the `fork_server`.

With several engine processes a front-end process has `engine_peers`, and `routed_version` and `routed_registry` in
front of the remote versions; the first engine process has `other_engines`, the others have `first_engine`. `controls`
connects the processes, which take the sockets in with a `control_end`.
"""
