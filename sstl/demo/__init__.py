"""The web page on which one drops photos or a clip and gets them back without rain."""
