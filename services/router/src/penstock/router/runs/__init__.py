"""Agent runs: one deadline, one spending limit, one cancel, shared between routers."""
