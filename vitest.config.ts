import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["{core,formats,kernels,model,calibrate,quantize,cli,tests}/**/*.test.ts"],
    exclude: ["**/node_modules/**", "dist/**", "tests/interop/**", "tests/slow/**"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    maxWorkers: 2,
  },
});
