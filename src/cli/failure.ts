/** Runs a command's work; an error is one line on standard error and status 1. */
export async function orFail(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    console.error(`dirigo: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
}
