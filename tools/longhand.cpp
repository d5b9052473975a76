// The longhand binary: everything happens in src/cli.
int main() {
  return 0;
}
