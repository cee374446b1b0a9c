# Cards that go away while they are driven. After this nothing can be done with them.

