import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import * as api from "../index.ts";

describe("the package", () => {
  test("exports these names and no others: a name is public because it was decided", () => {
    expect(Object.keys(api).toSorted()).toEqual([
      "BudgetError",
      "FormatError",
      "InputError",
      "InterruptedError",
      "NumericError",
      "QuantError",
      "UnsupportedError",
      "VerifyError",
      "WorkerError",
      "calibrate",
      "compareModels",
      "createEngine",
      "describeFormats",
      "describeMethods",
      "evaluate",
      "exportArtifact",
      "fromFloat32",
      "generate",
      "inspect",
      "loadSequences",
      "loadTokenizer",
      "logitsOf",
      "openDFloat11",
      "openModel",
      "openSamples",
      "parseGate",
      "parseMethod",
      "planQuantization",
      "quantize",
      "readCalibration",
      "restore",
      "resume",
      "tensorOf",
      "toFloat32",
      "tokenSample",
      "verifyArtifact",
      "walk",
      "withActivations",
      "writeCalibration",
    ]);
  });

  test("pins every dependency to one version", () => {
    const manifest = JSON.parse(readFileSync("package.json", "utf8")) as Record<string, Record<string, string>>;
    const versions = ["dependencies", "optionalDependencies", "devDependencies"].flatMap((key) => Object.entries(manifest[key]!));
    expect(versions.length).toBeGreaterThan(15);
    expect(versions.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([]);
  });

  test("names no machine's paths in the files users read", () => {
    for (const file of ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/cli.md", "docs/architecture.md"]) {
      expect(readFileSync(file, "utf8"), file).not.toMatch(/\/(home|root|work|tmp)\//);
    }
  });
});
