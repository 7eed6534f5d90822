"""What tests share: a node in a process of its own, a raw Diameter client, list files, programs of the system."""
