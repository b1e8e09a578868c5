"""What people expect of a tool like this, each thing done as a person does it: one test for each row of ROWS."""
