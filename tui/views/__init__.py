"""What the panes show, as lines of styled text: no widgets here, so it all can be read in tests."""
