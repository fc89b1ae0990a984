import { defineConfig } from "vitest/config";

/** Run from the repository's root: `npm run test:interop`. One file at a time: each starts processes of its own. */
export default defineConfig({
  test: {
    include: ["tests/interop/**/*.test.ts"],
    testTimeout: 600_000,
    hookTimeout: 600_000,
    fileParallelism: false,
    // Names what is skipped, and why.
    reporters: ["verbose"],
  },
});
