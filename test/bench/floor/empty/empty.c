//go:build ignore
// (The line above keeps this file out of the Go build.)
//
// Does nothing: what it costs is what any process pays to start and end.
int main(void) { return 0; }
