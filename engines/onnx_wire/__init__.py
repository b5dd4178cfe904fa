"""Generated code of the ONNX format; see `make proto`. Do not edit.

The messages live in a descriptor pool of their own, so that they meet no other definition of the format in the process.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
