"""The mapping: where the fields of events and purchase rows are in the messages of a shop's own topics."""
