"""Generated protocol code; see `make proto`. Do not edit.

The messages live in a descriptor pool of their own: protobuf's default pool holds one definition of a name, and
tritonclient (package `inference`) and grpcio-health-checking (`grpc.health.v1`) register theirs there (ADR 0101).
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
